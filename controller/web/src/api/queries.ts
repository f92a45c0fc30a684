// The questions that pages ask, each under a key of which the first part is what events make old.
import { queryOptions } from '@tanstack/vue-query'
import { api, body } from './client'
import type { paths } from './schema'
import type { KnownRule, PolicyDiff, Progress, Version } from './policy'
import type { Overview, History } from './types'

type Query<P extends keyof paths> = paths[P] extends { get: { parameters: { query?: infer Q } } } ? Q : never

/** Numbers change with each heartbeat, and no event tells of that. */
const NUMBERS = 5_000

// Each question is a statement of its own: within `queryOptions` its type would be guessed from the outside.
export const queries = {
  mode: () =>
    queryOptions({
      queryKey: ['mode'],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/mode')
        return body(answer)
      },
    }),

  stats: () =>
    queryOptions({
      queryKey: ['stats'],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/stats')
        return body(answer) as unknown as Overview
      },
      refetchInterval: NUMBERS,
    }),

  history: (of: 'hour' | 'day') =>
    queryOptions({
      queryKey: ['stats', 'history', of],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/stats/history', { params: { query: { of } } })
        return body(answer) as unknown as History
      },
      refetchInterval: of === 'hour' ? NUMBERS : 60_000,
    }),

  nodes: (query: Query<'/api/v1/nodes'>) =>
    queryOptions({
      queryKey: ['nodes', query],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/nodes', { params: { query } })
        return body(answer)
      },
      refetchInterval: 2 * NUMBERS,
    }),

  node: (node: string) =>
    queryOptions({
      queryKey: ['nodes', 'one', node],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/nodes/{node}', { params: { path: { node } } })
        return body(answer)
      },
      refetchInterval: NUMBERS,
    }),

  policy: (policy: string) =>
    queryOptions({
      queryKey: ['policies', 'one', policy],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/policies/{policy}', { params: { path: { policy } } })
        return body(answer)
      },
    }),

  rule: (policy: string, rule: string) =>
    queryOptions({
      queryKey: ['rules', 'one', policy, rule],
      queryFn: async () => {
        const path = { policy, rule }
        const answer = await api.GET('/api/v1/policies/{policy}/rules/{rule}', { params: { path } })
        return body(answer) as unknown as KnownRule
      },
    }),

  blame: (policy: string, rule: string) =>
    queryOptions({
      queryKey: ['rules', 'blame', policy, rule],
      queryFn: async () => {
        const path = { policy, rule }
        const answer = await api.GET('/api/v1/policies/{policy}/rules/{rule}/blame', { params: { path } })
        return body(answer) as unknown as Version
      },
    }),

  policyDiff: (policy: string, from: number, to: number) =>
    queryOptions({
      queryKey: ['diff', 'policy', policy, from, to],
      queryFn: async () => {
        const params = { path: { policy }, query: { from, to } }
        const answer = await api.GET('/api/v1/policies/{policy}/diff', { params })
        return body(answer) as unknown as PolicyDiff
      },
      staleTime: Infinity,
    }),

  setDiff: (set: string, from: number, to: number) =>
    queryOptions({
      queryKey: ['diff', 'set', set, from, to],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/sets/{set}/diff', {
          params: { path: { set }, query: { from, to } },
        })
        return body(answer)
      },
      staleTime: Infinity,
    }),

  progress: (policy: string) =>
    queryOptions({
      queryKey: ['progress', policy],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/policies/{policy}/progress', { params: { path: { policy } } })
        return body(answer) as unknown as Progress
      },
    }),

  plans: () =>
    queryOptions({
      queryKey: ['rollouts', 'plans'],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/rollout-plans')
        return body(answer)
      },
    }),

  set: (set: string) =>
    queryOptions({
      queryKey: ['sets', 'one', set],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/sets/{set}', { params: { path: { set } } })
        return body(answer)
      },
    }),

  feeds: () =>
    queryOptions({
      queryKey: ['feeds', 'all'],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/feeds', { params: { query: { limit: 1000 } } })
        return body(answer)
      },
    }),

  feed: (feed: string) =>
    queryOptions({
      queryKey: ['feeds', 'one', feed],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/feeds/{feed}', { params: { path: { feed } } })
        return body(answer)
      },
    }),

  lookup: (address: string) =>
    queryOptions({
      queryKey: ['sets', 'lookup', address],
      queryFn: async () => {
        const answer = await api.GET('/api/v1/lookup', { params: { query: { address } } })
        return body(answer)
      },
    }),
}
