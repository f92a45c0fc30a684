// Short messages about what was done.
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { problemOf } from '@/api/problem'

export interface Toast {
  id: number
  kind: 'good' | 'bad' | 'info'
  title: string
  detail?: string
}

export const useToasts = defineStore('toasts', () => {
  const all = ref<Toast[]>([])
  let last = 0

  function push(kind: Toast['kind'], title: string, detail?: string): void {
    last += 1
    all.value = [...all.value.slice(-4), { id: last, kind, title, detail }]
  }

  function remove(id: number): void {
    all.value = all.value.filter((toast) => toast.id !== id)
  }

  /** What was refused, in the controller's words. */
  function refused(title: string, error: unknown): void {
    const problem = problemOf(error)
    push('bad', title, [problem.detail, problem.mend].filter(Boolean).join('. '))
  }

  return { all, push, remove, refused }
})
