// Changes: asked of the controller, then what shows them is asked for again.
import { useQueryClient } from '@tanstack/vue-query'
import { useToasts } from '@/stores/toasts'

export function useAct(...touches: string[]): {
  /** Passes on what is refused. */
  run: <T>(work: () => Promise<T>, done?: string) => Promise<T>
  /** Says what is refused. */
  tell: <T>(failed: string, work: () => Promise<T>, done?: string) => Promise<T | undefined>
} {
  const client = useQueryClient()
  const toasts = useToasts()

  async function run<T>(work: () => Promise<T>, done?: string): Promise<T> {
    try {
      const result = await work()
      if (done) toasts.push('good', done)
      return result
    } finally {
      for (const key of touches) void client.invalidateQueries({ queryKey: [key] })
    }
  }
  async function tell<T>(failed: string, work: () => Promise<T>, done?: string): Promise<T | undefined> {
    try {
      return await run(work, done)
    } catch (error) {
      toasts.refused(failed, error)
      return undefined
    }
  }
  return { run, tell }
}
