import { HttpAgent } from '@ag-ui/client'
import { as, cuttingUrl, gone, run, stop, url } from './harness.mjs'

// A line that breaks fails a promise of the client's own that nobody can wait for, beside the run's.
process.on('unhandledRejection', () => {})

function agentOf(user, text, base = url, more = {}) {
  const agent = new HttpAgent({ url: `${base}/api/chat/stream?protocol=ag-ui`, headers: as(user, more), threadId: 'thread-1' })
  agent.addMessage({ id: `${user}-message`, role: 'user', content: text })
  return agent
}

/** What a subscriber hears of a run, by event type; text joined. */
async function hear(agent, parameters = {}, onText = () => {}) {
  const heard = { events: [], text: '' }
  const subscriber = {
    onEvent: ({ event }) => heard.events.at(-1) !== event.type && heard.events.push(event.type),
    onTextMessageContentEvent: ({ event }) => onText(event, (heard.text += event.delta)),
    onRunErrorEvent: ({ event }) => (heard.error = [event.message, event.code]),
    onRunFinishedEvent: ({ event }) => (heard.outcome = event.outcome?.type),
    onCustomEvent: ({ event }) => event.name === 'message_id' && (heard.messageId = event.value),
  }
  try {
    await agent.runAgent(parameters, subscriber)
  } catch (error) {
    heard.thrown = String(error.message ?? error)
    heard.status = error.status
  }
  return heard
}

await run({
  async answer(user) {
    const agent = agentOf(user, 'Hello, streaming world')
    const { events, text } = await hear(agent)
    return { events, text, messages: agent.messages.map(({ role, content }) => [role, content]) }
  },

  async unicode(user) {
    return (await hear(agentOf(user, '/unicode'))).text
  },

  async error(user) {
    const { text, error } = await hear(agentOf(user, '/error'))
    return { text, error }
  },

  async refusal(user) {
    return (await hear(agentOf(user, '   '))).status
  },

  async tool(user) {
    const agent = agentOf(user, '/tool')
    const { text } = await hear(agent)
    const call = agent.messages.find((message) => message.toolCalls)?.toolCalls[0]
    const result = agent.messages.find((message) => message.role === 'tool')
    return { text, name: call.function.name, input: JSON.parse(call.function.arguments), output: JSON.parse(result.content) }
  },

  async silence(user) {
    return (await hear(agentOf(user, '/silence 1'))).text
  },

  async stop(user) {
    let stopping
    const { text, outcome } = await hear(agentOf(user, '/slow 600 one two'), {}, (event) => {
      stopping = stop(user, event.messageId)
    })
    return { text, outcome, stop: await stopping, gone: await gone(user) }
  },

  async resume(user) {
    const agent = agentOf(user, '/slow 2 one two three four five', cuttingUrl, { 'X-Cut': 'three' })
    const broken = await hear(agent, { runId: `${user}-run` })
    agent.setMessages(agent.messages.filter((message) => message.role === 'user'))
    const { text, messageId } = await hear(agent, { runId: `${user}-run` })
    return { broken: Boolean(broken.thrown || broken.error), text, same: messageId === broken.messageId }
  },
})
