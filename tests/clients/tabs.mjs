// Two chats of one user, each in a tab of its own, with `useChat` in React: both tabs are reloaded while their replies run.

import { Window } from 'happy-dom'
import { as, eventually, run, url } from './harness.mjs'

const window = new Window({ url })
for (const name of Object.getOwnPropertyNames(window)) {
  if (!(name in globalThis)) globalThis[name] = window[name]
}
Object.assign(globalThis, { window, document: window.document })

const { createElement } = await import('react')
const { createRoot } = await import('react-dom/client')
const { Chat, useChat } = await import('@ai-sdk/react')
const { DefaultChatTransport } = await import('ai')

class Tab {
  statuses = []

  /** @param {object[]} messages The messages that the app stored before the tab was reloaded. */
  constructor(user, id, messages = []) {
    const transport = new DefaultChatTransport({
      api: `${url}/api/chat/stream?protocol=ai-sdk`,
      headers: as(user),
      fetch: async (...request) => {
        const response = await fetch(...request)
        this.statuses.push(response.status)
        return response
      },
    })
    this.chat = new Chat({ id, messages, transport })
    const element = document.body.appendChild(document.createElement('div'))
    this.element = element
    this.root = createRoot(element)
    const Page = () => {
      const { messages: shown } = useChat({ chat: this.chat, resume: true })
      return shown.map(({ id: key, role, parts }) =>
        createElement('p', { key, className: role }, parts.map((part) => (part.type === 'text' ? part.text : '')).join('')))
    }
    this.root.render(createElement(Page))
  }

  get reply() {
    return this.element.querySelector('.assistant')?.textContent ?? ''
  }

  get question() {
    return this.chat.messages.filter(({ role }) => role === 'user')
  }

  waitFor(text) {
    return eventually(() => this.reply.includes(text))
  }
}

await run({
  async tabs(user) {
    const [one, two] = ['chat-1', 'chat-2'].map((id) => new Tab(user, id))
    await eventually(() => one.statuses.length && two.statuses.length)
    one.chat.sendMessage({ text: '/slow 2 one two three four' })
    await one.waitFor('one ')
    two.chat.sendMessage({ text: '/slow 1 five six seven eight' })
    await eventually(() => two.statuses.length === 2)
    const reloaded = [one, two].map((tab) => new Tab(user, tab.chat.id, tab.question))
    const another = new Tab(user, 'chat-3')
    for (const tab of [one, two]) tab.root.unmount()
    await reloaded[0].waitFor('four')
    await reloaded[1].waitFor('eight')
    await eventually(() => another.statuses.length)
    const later = new Tab(user, 'chat-1', reloaded[0].question)
    await eventually(() => later.statuses.length)
    return {
      first: one.statuses,
      replies: reloaded.map((tab) => tab.reply),
      statuses: [...reloaded, another, later].map((tab) => tab.statuses),
      ids: reloaded.map((tab) => tab.chat.messages.map(({ role }) => role)),
    }
  },
})
