diffsteer check digits --out pictures/digits
