import { Chat } from '@ai-sdk/react'
import { DefaultChatTransport, readUIMessageStream } from 'ai'
import { as, cuttingUrl, eventually, waitUntilIdle, run, stop, truncatingUrl, url } from './harness.mjs'

function transport(user, base = url, more = {}) {
  return new DefaultChatTransport({ api: `${base}/api/chat/stream?protocol=ai-sdk`, headers: as(user, more) })
}

function chatOf(user, base, more) {
  const callbacks = []
  const chat = new Chat({
    id: 'chat-1',
    transport: transport(user, base, more),
    onData: (part) => callbacks.push(part.type),
    onFinish: ({ isAbort, isDisconnect, isError }) => callbacks.push({ isAbort, isDisconnect, isError }),
  })
  return { chat, callbacks }
}

function textOf(message) {
  return message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('')
}

function summary(chat) {
  return { status: chat.status, error: chat.error?.message, roles: chat.messages.map((m) => m.role), text: textOf(chat.lastMessage) }
}

const waitForText = (chat, text) => eventually(() => chat.lastMessage?.role === 'assistant' && textOf(chat.lastMessage).includes(text))

await run({
  async answer(user) {
    const { chat, callbacks } = chatOf(user)
    await chat.sendMessage({ text: 'Hello, streaming world' })
    await chat.sendMessage({ text: 'and again' })
    return { ...summary(chat), first: textOf(chat.messages[1]), seen: callbacks }
  },

  async unicode(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: '/unicode' })
    return textOf(chat.lastMessage)
  },

  async error(user) {
    const { chat, callbacks } = chatOf(user)
    await chat.sendMessage({ text: '/error' })
    return { ...summary(chat), seen: callbacks }
  },

  async refusal(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: '   ' })
    return { status: chat.status, error: JSON.parse(chat.error.message) }
  },

  async tool(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: '/tool' })
    const { state, toolName, input, output } = chat.lastMessage.parts.find((part) => part.type === 'dynamic-tool')
    return { state, toolName, input, output, text: textOf(chat.lastMessage) }
  },

  async silence(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: '/silence 1' })
    return summary(chat)
  },

  async stop(user) {
    const { chat } = chatOf(user)
    const sent = chat.sendMessage({ text: '/slow 600 one two' })
    await waitForText(chat, 'one ')
    const status = await stop(user, chat.lastMessage.id)
    await sent
    return { stop: status, ...summary(chat), gone: await waitUntilIdle(user) }
  },

  async resume(user) {
    const { chat, callbacks } = chatOf(user, cuttingUrl, { 'X-Cut': 'three' })
    await chat.sendMessage({ text: '/slow 2 one two three four five' })
    const broken = { status: chat.status, ...callbacks.at(-1) }
    await chat.resumeStream()
    return { broken, ...summary(chat) }
  },

  async reload(user) {
    const before = chatOf(user).chat
    const sent = before.sendMessage({ text: '/slow 2 one two three' })
    await waitForText(before, 'one ')
    const after = chatOf(user).chat
    after.messages = before.messages.slice(0, 1)
    await after.resumeStream()
    await sent
    await waitUntilIdle(user)
    const later = await transport(user).reconnectToStream({ chatId: 'chat-1' })
    return { before: textOf(before.lastMessage), after: summary(after), later }
  },

  async truncated(user) {
    const reasons = []
    const chat = new Chat({ transport: transport(user, truncatingUrl), onFinish: ({ finishReason }) => reasons.push(finishReason) })
    await chat.sendMessage({ text: 'hello' })
    const parts = chat.lastMessage.parts.map(({ type, text, state }) => [type, text, state])
    return { status: chat.status, parts, reasons }
  },

  async file(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ parts: [{ type: 'text', text: 'hi' }, { type: 'file', mediaType: 'image/png', url: 'data:image/png;base64,' }] })
    return JSON.parse(chat.error.message).error
  },

  async appParts(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ parts: [{ type: 'data-place', data: { city: 'Antioch' } }, { type: 'text', text: 'hi' }] })
    return summary(chat)
  },

  async regenerate(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: 'once' })
    const first = chat.lastMessage.id
    await chat.regenerate()
    return { ...summary(chat), another: chat.lastMessage.id !== first }
  },

  async edit(user) {
    const { chat } = chatOf(user)
    await chat.sendMessage({ text: 'first' })
    await chat.sendMessage({ text: 'edited', messageId: chat.messages[0].id })
    return summary(chat)
  },

  async reader(user) {
    const messages = [{ id: 'u-1', role: 'user', parts: [{ type: 'text', text: 'read me' }] }]
    const stream = await transport(user).sendMessages({ chatId: 'c', messages, trigger: 'submit-message' })
    let last
    for await (const message of readUIMessageStream({ stream })) last = message
    return textOf(last)
  },
})
