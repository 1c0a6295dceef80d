"""What all SQL systems share: quoting, the dialect model, the snapshot reading and the transactional load."""
