"""How the text model of `irtool instruct` is made and scored: word lists, sentence composer, training. Not shipped."""
