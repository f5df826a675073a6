"""What others do, to measure against: programs of their own, which use nothing of Headrace."""
