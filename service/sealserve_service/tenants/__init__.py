"""Tenants: how a call shows its tenant, and what each tenant may do."""
