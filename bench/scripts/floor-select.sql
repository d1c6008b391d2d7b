SELECT * FROM keypool_floor_select(:provider, 10);
