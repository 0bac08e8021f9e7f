"""Who calls, and what each tenant may do."""
