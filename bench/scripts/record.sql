SELECT keypool_record(:key, 10);
