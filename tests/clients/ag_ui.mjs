import { HttpAgent } from '@ag-ui/client'
import { as, cuttingUrl, waitUntilIdle, run, stop, truncatingUrl, url } from './harness.mjs'

// An interruption also rejects an internal promise of the client, which cannot be awaited.
process.on('unhandledRejection', () => {})

function agentOf(user, text, base = url, more = {}) {
  const agent = new HttpAgent({ url: `${base}/api/chat/stream?protocol=ag-ui`, headers: as(user, more), threadId: 'thread-1' })
  agent.addMessage({ id: `${user}-message`, role: 'user', content: text })
  return agent
}

/** Runs the agent. Resolves with the event types, the joined text and the outcome. */
async function runAgent(agent, parameters = {}, onText = () => {}) {
  const received = { events: [], text: '' }
  const subscriber = {
    onEvent: ({ event }) => received.events.at(-1) !== event.type && received.events.push(event.type),
    onTextMessageContentEvent: ({ event }) => onText(event, (received.text += event.delta)),
    onRunErrorEvent: ({ event }) => (received.error = [event.message, event.code]),
    onRunFinishedEvent: ({ event }) => Object.assign(received, { outcome: event.outcome?.type, metadata: event.metadata }),
    onCustomEvent: ({ event }) => event.name === 'message_id' && (received.messageId = event.value),
  }
  try {
    await agent.runAgent(parameters, subscriber)
  } catch (error) {
    received.thrown = String(error.message ?? error)
    received.status = error.status
  }
  return received
}

await run({
  async answer(user) {
    const agent = agentOf(user, 'Hello, streaming world')
    const { events, text } = await runAgent(agent)
    return { events, text, messages: agent.messages.map(({ role, content }) => [role, content]) }
  },

  async unicode(user) {
    return (await runAgent(agentOf(user, '/unicode'))).text
  },

  async error(user) {
    const { text, error } = await runAgent(agentOf(user, '/error'))
    return { text, error }
  },

  async refusal(user) {
    return (await runAgent(agentOf(user, '   '))).status
  },

  async tool(user) {
    const agent = agentOf(user, '/tool')
    const { text } = await runAgent(agent)
    const call = agent.messages.find((message) => message.toolCalls)?.toolCalls[0]
    const result = agent.messages.find((message) => message.role === 'tool')
    return { text, name: call.function.name, input: JSON.parse(call.function.arguments), output: JSON.parse(result.content) }
  },

  async truncated(user) {
    const agent = agentOf(user, 'hello', truncatingUrl)
    const { events, metadata, thrown } = await runAgent(agent)
    const messages = agent.messages.map(({ role, content }) => [role, content])
    agent.addMessage({ id: `${user}-again`, role: 'user', content: 'and again' })
    const { text } = await runAgent(agent)
    return { events, metadata, thrown, messages, again: text }
  },

  async silence(user) {
    return (await runAgent(agentOf(user, '/silence 1'))).text
  },

  async stop(user) {
    let stopping
    const { text, outcome } = await runAgent(agentOf(user, '/slow 600 one two'), {}, (event) => {
      stopping = stop(user, event.messageId)
    })
    return { text, outcome, stop: await stopping, gone: await waitUntilIdle(user) }
  },

  async resume(user) {
    const agent = agentOf(user, '/slow 2 one two three four five', cuttingUrl, { 'X-Cut': 'three' })
    const broken = await runAgent(agent, { runId: `${user}-run` })
    agent.setMessages(agent.messages.filter((message) => message.role === 'user'))
    const { text, messageId } = await runAgent(agent, { runId: `${user}-run` })
    return { broken: Boolean(broken.thrown || broken.error), text, same: messageId === broken.messageId }
  },
})
