// The browser of the tests: headless Chromium, RINGWAY_CHROMIUM or Debian's.
import { chromium } from 'playwright-core';

export const launch = () => chromium.launch({
  executablePath: process.env.RINGWAY_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic'],
});
