//! What every daemon does alike: config, clock, secrets, telemetry, HTTP edge, fetch, shutdown.
