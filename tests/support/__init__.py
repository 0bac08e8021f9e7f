"""What tests share: servers, clients, certificates, hostile peers. No test is here."""
