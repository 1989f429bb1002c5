import OpenAI from 'openai'
import { eventually } from './harness.mjs'

/** The API has no chats to resume: after a lost connection, the same call with the same key gets the same reply. */
export class OpenAiClient {
  resumesItself = false
  text = ''

  constructor({ base, headers }) {
    this.client = new OpenAI({ baseURL: `${base}/v1`, apiKey: 'none', defaultHeaders: headers, maxRetries: 0 })
  }

  waitFor(text) {
    return eventually(() => this.text.includes(text))
  }

  /** The stop button of these clients ends the connection. */
  disconnect() {
    this.stream.controller.abort()
  }

  messageId() {
    return this.id
  }

  async send(text) {
    this.request = [
      { model: 'default', messages: [{ role: 'user', content: text }], stream: true },
      { headers: { 'Idempotency-Key': crypto.randomUUID() } },
    ]
    return this.run()
  }

  async run() {
    this.text = ''
    let finish
    try {
      this.stream = await this.client.chat.completions.create(...this.request)
      for await (const { id, choices } of this.stream) {
        this.id = id.replace('chatcmpl-', '')
        this.text += choices[0].delta.content ?? ''
        finish ??= choices[0].finish_reason
      }
    } catch (error) {
      return { text: this.text, error: error.error?.message ?? error.message }
    }
    return finish ? { text: this.text } : { text: this.text, error: 'the stream ended early' }
  }

  async resume(shown) {
    return shown.error ? this.run() : shown
  }
}
