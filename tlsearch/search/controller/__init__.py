"""The controller of a search: dispatches trials, answers reports, ends trials; imports no Ray."""
