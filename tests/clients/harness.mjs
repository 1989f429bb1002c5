// Runs a client's cases side by side, each as a user of its own, and prints what each saw.

const headers = JSON.parse(process.env.HEADERS)
export const url = process.env.SERVER_URL
export const cuttingUrl = process.env.CUTTING_URL

/** Headers of a user: what the proxy in front of us would add. */
export function as(user, more = {}) {
  return { ...headers, 'X-Forwarded-User': user, ...more }
}

export async function eventually(condition, seconds = 25) {
  const deadline = Date.now() + seconds * 1000
  let result
  while (!(result = await condition()) && Date.now() < deadline) await new Promise((go) => setTimeout(go, 50))
  return result
}

/** Whether nothing of the user's waits or runs any more. */
export function gone(user) {
  return eventually(async () => {
    const response = await fetch(`${url}/api/chat/active`, { headers: as(user) })
    return (await response.json()).messages.length === 0
  })
}

export async function stop(user, messageId) {
  return (await fetch(`${url}/api/chat/stream/${messageId}/stop`, { method: 'POST', headers: as(user) })).status
}

const late = (seconds) => new Promise((_, fail) => setTimeout(() => fail(new Error('no end')), seconds * 1000).unref())

export async function run(cases) {
  const results = {}
  const one = async ([name, body]) => {
    try {
      results[name] = await Promise.race([body(`${process.env.CLIENT}-${name}`), late(40)])
    } catch (error) {
      results[name] = { failed: String(error?.stack ?? error) }
    }
  }
  await Promise.all(Object.entries(cases).map(one))
  process.stdout.write(`\n${JSON.stringify(results)}\n`, () => process.exit(0))
}
