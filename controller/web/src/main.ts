import './styles/tokens.css'
import './styles/base.css'
import './styles/parts.css'

import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { whenLoggedOut } from './api/client'
import { Refused } from './api/problem'
import App from './App.vue'
import { i18n } from './i18n'
import { router } from './router'
import { usePreferences } from './stores/preferences'
import { useSession } from './stores/session'

const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      // What was refused will be refused again; what could not be reached may be back.
      retry: (count, error) => count < 2 && error instanceof Refused && error.problem.status === 0,
      refetchOnWindowFocus: true,
    },
  },
})

const app = createApp(App).use(createPinia()).use(i18n).use(VueQueryPlugin, { queryClient })

whenLoggedOut(() => {
  useSession().lost()
  queryClient.clear()
  const here = router.currentRoute.value
  if (!here.meta.open) void router.push({ name: 'login', query: { next: here.fullPath } })
})

await usePreferences().ready
app.use(router).mount('#app')
