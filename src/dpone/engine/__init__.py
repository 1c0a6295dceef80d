"""manifest -> plan -> read -> stage -> commit -> ledger -> record."""
