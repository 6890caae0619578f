"""The forecast of a search: what it will take, from timings on this device and a simulation of its own scheduler."""
