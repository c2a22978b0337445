"""The command line with made-up characters and runs of four updates, to be started by torchrun."""

from dataclasses import replace

from lib import cli
from lib.experiments import omniglot
from tests.experiments.made_up import made_up_characters

real_profile = omniglot.in_profile


def short(paper: omniglot.OmniglotConfig, profile: str) -> omniglot.OmniglotConfig:
    config = real_profile(paper, profile)
    training = replace(
        config.training,
        updates=4,
        batch_size=4,
        log_every=2,
        validate_every=2,
        validation_batches=1,
        checkpoint_every=2,
    )
    return replace(config, training=training, test_batches=3)


if __name__ == "__main__":
    omniglot.in_profile, omniglot.load_characters = short, made_up_characters
    cli.main()
