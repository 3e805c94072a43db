//! The verifying reverse proxy in front of MCP servers.
