import vue from '@vitejs/plugin-vue'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

// `npm run dev` serves the sources and hands /api to a running controller.
const controller = process.env.XDPGATE_CONTROLLER_SERVER ?? 'http://127.0.0.1:8480'

export default defineConfig({
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  server: { proxy: { '/api': { target: controller } } },
  build: {
    target: 'es2022',
    // Names of files have a digest of their content: the controller lets browsers keep them for good.
    assetsDir: 'assets',
    // No script may be inlined: the controller's content security policy allows files only.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1200,
    rollupOptions: {
      output: {
        manualChunks: {
          vue: ['vue', 'vue-router', 'pinia', 'vue-i18n', '@tanstack/vue-query'],
        },
      },
    },
  },
})
