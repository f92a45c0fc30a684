// Who is logged in. The session itself is a cookie that scripts cannot read.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import { api, must, setCsrf } from '@/api/client'
import { Refused } from '@/api/problem'
import type { components } from '@/api/schema'

export type Me = components['schemas']['Me']
export type Role = 'viewer' | 'operator' | 'admin'
const RANK: Record<string, number> = { viewer: 1, operator: 2, admin: 3 }

export const useSession = defineStore('session', () => {
  const me = ref<Me | null>(null)
  /** The session ended while somebody worked. */
  const expired = ref(false)
  let asked: Promise<void> | undefined

  function take(answer: Me | null): void {
    me.value = answer
    setCsrf(answer?.csrf_token ?? '')
    if (answer) expired.value = false
  }

  /** Asks once who this is. */
  function known(): Promise<void> {
    asked ??= must(api.GET('/api/v1/session')).then(take, (error: unknown) => {
      take(null)
      if (!(error instanceof Refused) || error.problem.status !== 401) asked = undefined
    })
    return asked
  }

  async function login(user: string, password: string): Promise<void> {
    take(await must(api.POST('/api/v1/session', { body: { user, password } })))
  }

  async function setPassword(current: string, next: string): Promise<void> {
    const user = me.value?.user ?? ''
    const body = { current_password: current, new_password: next }
    await api.PUT('/api/v1/session/password', { body })
    // That ends all sessions of the user, this one too.
    await login(user, next)
  }

  async function logout(): Promise<void> {
    await api.DELETE('/api/v1/session')
    take(null)
  }

  function lost(): void {
    if (me.value) expired.value = true
    take(null)
  }

  const may = (role: Role): boolean => (RANK[me.value?.role ?? ''] ?? 0) >= (RANK[role] ?? 9)
  const isOperator = computed(() => may('operator'))
  const isAdmin = computed(() => may('admin'))

  return { me, expired, known, login, setPassword, logout, lost, may, isOperator, isAdmin }
})
