SELECT * FROM keypool_try_select(:provider, 10);
