def there(doc: dict[str, str]) -> str:
    return "x"
