"""What steps learn, as frozen types: the store keeps them as JSON, and a version's manifest holds them."""
