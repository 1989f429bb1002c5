import { HttpAgent } from '@ag-ui/client'
import { eventually } from './harness.mjs'

// An interruption also rejects an internal promise of the client, which cannot be awaited.
process.on('unhandledRejection', () => {})

/** `HttpAgent`: a broken run is resumed by running it again. */
export class AgUiClient {
  resumesItself = false
  text = ''

  constructor(options) {
    this.options = options
    this.agent = new HttpAgent({ url: `${options.base}/api/chat/stream?protocol=ag-ui`, headers: options.headers, threadId: options.chat })
  }

  get accepted() {
    return Boolean(this.id)
  }

  waitFor(text) {
    return eventually(() => this.text.includes(text))
  }

  messageId() {
    return this.id
  }

  async send(text) {
    this.runId = crypto.randomUUID()
    this.agent.addMessage({ id: crypto.randomUUID(), role: 'user', content: text })
    return this.run()
  }

  async run() {
    const received = {}
    this.text = ''
    try {
      await this.agent.runAgent({ runId: this.runId }, {
        onTextMessageContentEvent: ({ event }) => void (this.text += event.delta),
        onRunErrorEvent: ({ event }) => void (received.error = event.message),
        onRunFinishedEvent: () => void (received.finished = true),
        onCustomEvent: ({ event }) => void (event.name === 'message_id' && (this.id = event.value)),
      })
    } catch (error) {
      received.error ??= String(error.message)
    }
    if (!received.finished && !received.error) received.error = 'the stream ended early'
    return received.error ? { text: this.text, error: received.error } : { text: this.text }
  }

  async resume(shown) {
    if (!shown.error) return shown
    this.agent.setMessages(this.agent.messages.slice(0, this.agent.messages.findLastIndex(({ role }) => role === 'user') + 1))
    return this.run()
  }

  /** The app stores the user's messages and the run's id. */
  async reloaded() {
    const after = new AgUiClient(this.options)
    after.runId = this.runId
    after.agent.setMessages(this.agent.messages.filter(({ role }) => role === 'user'))
    return after
  }

  shown() {
    return this.run()
  }
}
