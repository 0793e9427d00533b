"""First floor: measurements become alarms. Stands on firmware_bridge only."""
