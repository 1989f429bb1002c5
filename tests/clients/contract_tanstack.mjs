import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client'
import { eventually } from './harness.mjs'

/** What a browser's storage does: values are copies. */
class Storage {
  constructor(items = new Map()) {
    this.items = items
  }
  getItem = (key) => structuredClone(this.items.get(key))
  setItem = (key, value) => void this.items.set(key, structuredClone(value))
  removeItem = (key) => void this.items.delete(key)
  copy = () => new Storage(new Map(this.items))
}

/** `useChat` of TanStack AI, which resumes by itself, and after a reload with the run that its storage has. */
export class TanStackClient {
  resumesItself = true

  constructor({ base, headers, chat, persistence = new Storage() }) {
    this.options = { base, headers, chat }
    this.persistence = persistence
    this.client = new ChatClient({
      threadId: chat,
      persistence,
      connection: fetchServerSentEvents(`${base}/api/chat/stream?protocol=ag-ui`, { headers, reconnect: { delayMs: 50, maxAttempts: 100 } }),
      onChunk: (chunk) => chunk.type === 'CUSTOM' && chunk.name === 'message_id' && (this.id = chunk.value),
    })
  }

  get accepted() {
    return Boolean(this.id)
  }

  get text() {
    const last = this.client.getMessages().at(-1)
    return last?.role === 'assistant' ? last.parts.filter(({ type }) => type === 'text').map(({ content }) => content).join('') : ''
  }

  get result() {
    const error = this.client.getError()
    return error ? { text: this.text, error: error.message } : { text: this.text }
  }

  waitFor(text) {
    return eventually(() => this.text.includes(text))
  }

  messageId() {
    return this.id
  }

  async send(text) {
    try {
      await this.client.sendMessage(text)
    } catch {
      // It is in `getError()`.
    }
    return this.result
  }

  async reloaded() {
    const after = new this.constructor({ ...this.options, persistence: this.persistence.copy() })
    after.client.attach()
    return after
  }

  async shown() {
    await eventually(() => this.client.getStatus() === 'streaming' || this.text)
    await eventually(() => this.client.getStatus() !== 'streaming')
    return this.result
  }
}

/** The same without a storage of its own: after a reload it asks the server for the thread's run. */
export class HydratedTanStackClient extends TanStackClient {
  constructor(options) {
    super({ ...options, persistence: true })
  }

  async reloaded() {
    const after = new this.constructor(this.options)
    after.client.attach()
    return after
  }
}
