"""What every part uses: errors, files, seeds, registries, fingerprints of code, being asked to stop."""
