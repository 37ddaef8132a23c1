"""The vision-language model: what it is shown, what it is asked, the server that runs it, its client."""
