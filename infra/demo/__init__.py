"""`lakeloop demo`: the whole loop on the flights that left New York in 2013."""
