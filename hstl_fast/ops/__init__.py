"""The operators: schema, fake, launchers, autograd and public function of each, one file an operator."""
