SELECT keypool_floor_record(:key, 10);
