"""What checks the annotations of `lib` in the tests: beartype, to which an int is a float, as annotations have it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
