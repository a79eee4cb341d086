"""The pages, one module a group. Each view reads by `visible_to`, acts by a service, and shows."""
