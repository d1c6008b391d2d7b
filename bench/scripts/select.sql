SELECT * FROM keypool_select(:provider, 10);
