"""Pure functions behind `datarax.operators.batch_mix_operator`."""
