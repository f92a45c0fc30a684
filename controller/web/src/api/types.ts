// Answers that the OpenAPI document does not yet describe in full.
export type NodeState =
  | 'never_connected'
  | 'connecting'
  | 'fresh'
  | 'stale'
  | 'offline'
  | 'refused'
  | 'drifted'
  | 'draining'
  | 'maintenance'
  | 'revoked'

export interface Rates {
  passed: number
  dropped: number
  would_drop: number
  bits: number
}
export interface CountRow {
  reason: string
  fate: 'pass' | 'drop' | 'would_drop'
  packets: number
  bytes: number
}
export interface RuleRow {
  id: string
  matched: number
  bits: number
  dropped: number
  would_drop: number
  packets: number | null
  nodes: number
}
export interface Overview {
  nodes: number
  online: number
  fresh: number
  states: Record<NodeState, number>
  state: NodeState | null
  applied: number
  drift: number
  counts: CountRow[] | null
  rates: Rates | null
  rates_of: number
  top_rules: RuleRow[]
  bans: number | null
}
export interface Sample {
  at: string
  rates: Rates | null
  of: number
  nodes: number
  online: number
}
export interface History {
  step_seconds: number
  samples: Sample[]
}
export interface Delivery {
  delivery: 'applied' | 'refused' | 'pending' | 'offline'
  reason?: string
  error?: string
  overdue?: boolean
}
export type NodeStatus = Delivery & {
  state: NodeState
  address?: string | null
  connected_since?: string | null
  version?: string
  host_name?: string
  kernel?: string
  machine?: string
  has?: string | null
  wanted?: string | null
  sequence?: number
  drift?: number
  missed?: number
  flapping?: boolean
  heartbeat_age?: number | null
  fresh?: boolean
  numbers?: {
    counts: CountRow[]
    rates: Rates | null
    top_rules: RuleRow[]
    attached: number
    broken: string | null
    not_saved: string | null
    bans: number
    rules: number
    entries: number
  } | null
}
export interface AuditRow {
  id: string
  at: string
  actor: string
  role: string
  origin: string
  action: string
  object: string
  detail?: { why?: string; [field: string]: unknown } | null
}
