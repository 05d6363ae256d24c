"""Check before a long run starts what it needs of a site: `cotdistill doctor`.

`checks` is the table of checks, `finding` what each returns, `site` what they know, `shell` how they run
commands; the checks themselves are in `slurm`, `job` (with `node`, its part on a node), `status`, `local`
and `disk`. Nothing is imported here: a node imports this package too.
"""
