import { Chat } from '@ai-sdk/react'
import { WorkflowChatTransport } from '@ai-sdk/workflow/client'
import { DefaultChatTransport } from 'ai'
import { eventually } from './harness.mjs'

function textOf(message) {
  return message?.parts.filter((part) => part.type === 'text').map((part) => part.text).join('') ?? ''
}

/** `useChat` with `DefaultChatTransport`, which needs `resumeStream` after a lost connection. */
export class AiSdkClient {
  resumesItself = false
  accepted = false

  constructor(options) {
    this.options = options
    this.chat = new Chat({ id: options.chat, transport: this.transport(options) })
  }

  transport({ base, headers }) {
    return new DefaultChatTransport({ api: `${base}/api/chat/stream?protocol=ai-sdk`, headers, fetch: this.fetch })
  }

  fetch = async (...request) => {
    const response = await fetch(...request)
    this.accepted = response.ok
    return response
  }

  get text() {
    return this.chat.lastMessage?.role === 'assistant' ? textOf(this.chat.lastMessage) : ''
  }

  get result() {
    return this.chat.error ? { text: this.text, error: this.chat.error.message } : { text: this.text }
  }

  waitFor(text) {
    return eventually(() => this.text.includes(text))
  }

  messageId() {
    return this.chat.lastMessage.id
  }

  async send(text) {
    this.chat.clearError()
    await this.chat.sendMessage({ text })
    return this.result
  }

  async resume(shown) {
    if (shown.error) await this.chat.resumeStream()
    return this.result
  }

  /** The app stores the user's messages; the transport resumes with the chat's id. */
  async reloaded() {
    const after = new this.constructor(this.options)
    after.chat.messages = this.chat.messages.filter(({ role }) => role === 'user')
    return after
  }

  async shown() {
    await this.chat.resumeStream()
    return this.result
  }
}

/** `useChat` with `WorkflowChatTransport`, which resumes by itself. Its POST declares no content type. */
export class WorkflowClient extends AiSdkClient {
  resumesItself = true

  transport({ base, headers }) {
    return new WorkflowChatTransport({
      api: `${base}/api/chat/stream`,
      fetch: this.fetch,
      prepareSendMessagesRequest: ({ id, messages }) => ({ body: { id, messages }, headers }),
      prepareReconnectToStreamRequest: ({ api }) => ({ api, headers }),
    })
  }
}
