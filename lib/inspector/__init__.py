"""What a network does to its memory over an episode: a trace of it, and one viewer of the trace."""
