"""Run a grid: the workflow, plan, progress, local jobs and checks of a site."""
