"""Ground floor: bytes from devices become measurements (ISO 13374 data acquisition). Imports no other room."""
