"""Memory as tools for assistants, by the Model Context Protocol (MCP). docs/mcp.md"""
