import { fetchEventSource } from '@microsoft/fetch-event-source'
import { EventSource } from 'eventsource'
import { createEventSource } from 'eventsource-client'
import { eventually } from './harness.mjs'

const TERMINAL = ['complete', 'error', 'stopped']

// fetch-event-source expects a browser's globals, and checks whether the page is hidden.
globalThis.window ??= globalThis
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} }

class NativeClient {
  resumesItself = true
  text = ''

  constructor(options) {
    this.options = options
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

  async reloaded() {
    const after = new this.constructor(this.options)
    after.id = this.id
    return after
  }

  shown() {
    return this.follow()
  }

  request(text) {
    const headers = { 'Content-Type': 'application/json', ...this.options.headers }
    return { method: 'POST', headers, body: JSON.stringify({ message: text, client_message_id: crypto.randomUUID() }) }
  }

  /** Returns what is shown once an event is terminal. */
  read(data) {
    const event = JSON.parse(data)
    if (event.type === 'progress') this.text += event.text
    if (event.type === 'restart') this.text = ''
    if (event.type === 'error') return { text: this.text, error: event.error }
    return TERMINAL.includes(event.type) ? { text: this.text } : undefined
  }
}

/** A POST, and `EventSource` for the reply's URL. */
export class EventSourceClient extends NativeClient {
  async send(text) {
    const controller = new AbortController()
    const request = this.request(text)
    delete request.headers['X-Cut-Frame'] // Only the stream is cut.
    const response = await fetch(`${this.options.base}/api/chat/stream`, { ...request, signal: controller.signal })
    controller.abort()
    this.id = response.headers.get('X-Message-ID')
    return this.follow()
  }

  follow() {
    this.text = ''
    return new Promise((resolve) => {
      const source = new EventSource(`${this.options.base}/api/chat/stream/${this.id}`, {
        fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...this.options.headers } }),
      })
      source.onmessage = ({ data }) => {
        const shown = this.read(data)
        if (shown) resolve(shown, source.close())
      }
    })
  }
}

/** `eventsource-client`, which sends its POST again after a lost connection, with the id of the last event. */
export class EventSourceClientClient extends NativeClient {
  send(text) {
    return this.open({ url: `${this.options.base}/api/chat/stream`, ...this.request(text) })
  }

  follow() {
    return this.open({ url: `${this.options.base}/api/chat/stream/${this.id}`, headers: this.options.headers })
  }

  async open(request) {
    this.text = ''
    const watched = async (...call) => {
      const response = await fetch(...call)
      this.id = response.headers.get('X-Message-ID') ?? this.id
      return response
    }
    const source = createEventSource({ ...request, fetch: watched })
    try {
      for await (const { data } of source) {
        const shown = this.read(data)
        if (shown) return shown
      }
    } finally {
      source.close()
    }
  }
}

/** `@microsoft/fetch-event-source`, which does the same. */
export class FetchEventSourceClient extends NativeClient {
  send(text) {
    return this.open(`${this.options.base}/api/chat/stream`, this.request(text))
  }

  follow() {
    return this.open(`${this.options.base}/api/chat/stream/${this.id}`, { headers: this.options.headers })
  }

  async open(url, request) {
    let shown
    this.text = ''
    const controller = new AbortController()
    await fetchEventSource(url, {
      ...request,
      signal: controller.signal,
      openWhenHidden: true,
      onopen: async (response) => void (this.id = response.headers.get('X-Message-ID') ?? this.id),
      onmessage: ({ data }) => {
        if (data) shown ??= this.read(data)
        if (shown) controller.abort() // Or it would reconnect, if the connection is lost after the last event.
      },
      onclose: () => {
        if (!shown) throw new Error('the stream ended early') // Makes it reconnect.
      },
      onerror: () => 50,
    })
    return shown
  }
}
