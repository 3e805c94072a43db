//! A small MCP server over real git repositories: git_log and git_show, both protocol eras.
