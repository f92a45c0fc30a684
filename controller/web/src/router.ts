import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'
import { i18n } from './i18n'
import { type Role, useSession } from './stores/session'

declare module 'vue-router' {
  interface RouteMeta {
    /** The key of its name. */
    title?: string
    /** Who sees it. */
    role?: Role
    open?: boolean
  }
}

/** A page, under its name in the navigation. */
function page(
  path: string,
  name: string,
  component: RouteRecordRaw['component'],
  role?: Role,
): RouteRecordRaw {
  return {
    path,
    name,
    component,
    meta: { title: `nav.${name.split('-')[0] ?? name}`, role },
  } as RouteRecordRaw
}

const routes: RouteRecordRaw[] = [
  {
    path: '/login',
    name: 'login',
    component: () => import('./pages/LoginPage.vue'),
    meta: { open: true, title: 'login.title' },
  },
  page('/', 'overview', () => import('./pages/OverviewPage.vue')),
  page('/nodes', 'nodes', () => import('./pages/NodesPage.vue')),
  page('/nodes/:id', 'nodes-one', () => import('./pages/NodePage.vue')),
  page('/drops', 'drops', () => import('./pages/DropsPage.vue')),
  page('/activity', 'activity', () => import('./pages/ActivityPage.vue')),
  page('/policies', 'policies', () => import('./pages/PoliciesPage.vue')),
  page('/policies/:policy', 'policies-one', () => import('./pages/PolicyPage.vue')),
  page('/groups', 'groups', () => import('./pages/GroupsPage.vue')),
  page('/sets', 'sets', () => import('./pages/SetsPage.vue')),
  page('/sets/:set', 'sets-one', () => import('./pages/SetPage.vue')),
  page('/feeds', 'feeds', () => import('./pages/FeedsPage.vue')),
  page('/rollouts', 'rollouts', () => import('./pages/RolloutsPage.vue')),
  page('/rollouts/:id', 'rollouts-one', () => import('./pages/RolloutPage.vue')),
  page('/simulator', 'simulator', () => import('./pages/SimulatorPage.vue')),
  page('/users', 'users', () => import('./pages/UsersPage.vue'), 'admin'),
  page('/tokens', 'tokens', () => import('./pages/TokensPage.vue')),
  page('/audit', 'audit', () => import('./pages/AuditPage.vue'), 'admin'),
  page('/settings', 'settings', () => import('./pages/SettingsPage.vue')),
  {
    path: '/:rest(.*)*',
    name: 'missing',
    component: () => import('./pages/MissingPage.vue'),
    meta: { title: 'missing.title' },
  },
]

export const router = createRouter({
  history: createWebHistory(),
  routes,
  scrollBehavior: (to, from, saved) => saved ?? (to.path === from.path ? false : { top: 0 }),
})

router.beforeEach(async (to) => {
  const session = useSession()
  await session.known()
  if (to.meta.open) return true
  const me = session.me
  if (!me || me.must_change_password) {
    return { name: 'login', query: to.fullPath === '/' ? {} : { next: to.fullPath } }
  }
  if (to.meta.role && !session.may(to.meta.role)) return { name: 'overview' }
  return true
})

router.afterEach((to) => {
  const { t } = i18n.global
  document.title = to.meta.title ? `${t(to.meta.title)} · xdpgate` : 'xdpgate'
})
