"""The operators, one file each: schema, fake, autograd and public function. Their kernels are in hstl_fast/backends."""
